"""Runs the whole system on one machine: what ``manage_all.py`` calls.

Until the virtual environment exists only the standard library may be imported here at module level.
"""
