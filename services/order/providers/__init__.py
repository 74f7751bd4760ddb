"""Payment providers: one interface, chosen by configuration."""
