"""What is proved of the turn protocol: exhaustively on a model of it, and by generated histories on the real code."""
