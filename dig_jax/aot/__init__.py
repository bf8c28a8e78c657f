"""Reading what the TPU compiler made: chip figures, FLOPs, collectives and traffic, roofline. See `compile`."""
