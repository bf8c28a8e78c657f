"""Devices, processes and disks: meshes and rows, joining hosts, stopping, folders and buckets."""
