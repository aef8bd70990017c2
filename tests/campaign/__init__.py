"""A fault campaign: traffic, several processes, a nemesis, and a verdict. `make faults`."""
