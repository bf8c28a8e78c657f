"""Reading what the TPU compiler made: chip figures, FLOPs, collectives, traffic, roofline. See `compile`."""
