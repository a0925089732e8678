"""A conda channel, a package index and a server for them, made on the spot: what the builder's tests install."""
