"""Devices and workers: tf.distribute strategies, the rendezvous of several workers, the probe for a TPU."""
