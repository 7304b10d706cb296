"""The siblings' colours, the same in every picture and on every page."""

# From the palette of Okabe and Ito, whose colours are told apart in all common kinds of colour blindness.
COLOURS = {"lightning": "#0072B2", "keras": "#D55E00"}
