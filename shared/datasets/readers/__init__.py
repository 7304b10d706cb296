"""One file for each way in which a data set in arrays is stored; `Definition.reader` names it."""
