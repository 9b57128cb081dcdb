"""Sockets and HTTP/1.1 on both sides: clients' connections, nodes' connections, and what goes between them."""
