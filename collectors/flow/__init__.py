"""NetFlow v5, v9, IPFIX and sFlow v5: datagrams to flow records, by kernels."""
