"""Broker processes on this machine."""
