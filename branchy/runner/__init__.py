"""The jobs, end to end: tier, device, training, evaluation, demo."""
