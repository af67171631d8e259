"""SNMP as bytes: BER, messages, the user-based security model. Used by who receives, who polls, who sends."""
