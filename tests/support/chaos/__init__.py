"""Faults on a real Kafka of three nodes, tiers in processes, and links that can be spoilt; what was lost by them."""
