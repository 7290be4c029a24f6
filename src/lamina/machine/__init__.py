"""Machines: what devices can hold and do, and what follows for an architecture. Imports no torch."""

from lamina.machine.devices import Device, device, devices

__all__ = ["Device", "device", "devices"]
