"""A comparison as one page of HTML, with curves that can be zoomed: python -m shared.compare --html

uplot/ holds the one library that the page needs, uPlot 1.6.32 (https://github.com/leeoniya/uPlot, MIT licence), as it
is in the npm package `uplot`: `npm pack uplot@1.6.32` brings the same three files. At 51 kB it is the smallest of the
libraries looked at that zoom and draw bands. The others, minified: dygraphs 130 kB, Chart.js with its zoom 225, the
simple bundle of ECharts 500, Vega with Vega-Lite 830, Plotly's bundle for cartesian charts 1,500, Bokeh 1,390.
"""
