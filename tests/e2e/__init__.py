"""The product through its REST and gRPC faces: every process is real."""
