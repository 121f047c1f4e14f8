"""What branchy costs: `make bench` prints ratios measured side by side in one run, and the machine."""
