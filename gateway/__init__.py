"""The one entry point: who may go where, the storefront, the API's documentation."""
