"""A server that answers questions about images from an exported model.

reading.py  what clients send, as pixels; what is refused
server.py   LitServe with this repository's endpoints
command.py  the command line, starting and stopping
"""
