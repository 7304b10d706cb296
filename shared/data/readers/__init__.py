"""A file for each way in which data sets in arrays are stored. `Definition.reader` names one of them."""
