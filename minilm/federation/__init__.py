"""Federated averaging on Flower: clients train on their own texts, a server averages their weights."""
