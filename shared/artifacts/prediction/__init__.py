"""Asking a trained model about images: what predict.py does in both siblings.

sources.py  which images are named: files, folders, patterns, names on standard input
reading.py  the images decoded by threads, in order, a bounded number ahead
model.py    the model that a run folder, a weight file or an exported model holds
answers.py  what the model says about each image
rows.py     the answers as rows of CSV, JSON lines or Parquet
command.py  the command line
"""
