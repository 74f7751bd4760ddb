"""How the system is run: processes, servers, packages, container files."""
