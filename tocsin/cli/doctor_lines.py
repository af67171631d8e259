"""Lines for routers' configurations that mend what `tocsin doctor` finds; 192.0.2.10 stands for Tocsin.

`; ` stands between lines and before what belongs under the line in front of it. Not tried on routers:
read from the vendors' documents, and seen in configurations of others.

Source: Cisco, NetFlow and System Monitoring command references for IOS-XR 7; Juniper, CLI reference
(flow-monitoring, syslog, snmp); Nokia, SR OS 22 MD-CLI command reference (cflowd, log, system); Huawei,
NetEngine 8000 command reference (netstream, info-center, snmp-agent); Arista, EOS user manual (sampled
flow tracking, logging, snmp-server).
"""

from collections.abc import Mapping

Lines = Mapping[str, str]

CLOCK: Lines = {
    "IOS-XR": "ntp server 192.0.2.123; service timestamps log datetime localtime msec show-timezone year",
    "Junos": "set system ntp server 192.0.2.123; set system syslog time-format year millisecond",
    "SR OS": '/configure system time ntp server 192.0.2.123 router-instance "Base"; '
    "/configure system time ntp admin-state enable",
    "VRP": "ntp-service unicast-server 192.0.2.123; info-center timestamp log format-date",
    "EOS": "ntp server 192.0.2.123; logging format timestamp traditional year timezone",
}
TEMPLATES: Lines = {
    "IOS-XR": "flow exporter-map X; version v9; template data timeout 60; options interface-table timeout 60",
    "Junos": "set services flow-monitoring version9 template X template-refresh-rate seconds 60; "
    "set services flow-monitoring version9 template X option-refresh-rate seconds 60",
    "SR OS": "/configure cflowd template-retransmit 60",
    "VRP": "ip netstream export template timeout-rate 1; ip netstream export template option timeout-rate 1",
    "EOS": "flow tracking sampled; tracker T; exporter X; template interval 60000",
}
SYSLOG: Lines = {
    "IOS-XR": "logging 192.0.2.10 severity info port 5514; logging hostnameprefix NAME",
    "Junos": "set system syslog host 192.0.2.10 any info port 5514 structured-data",
    "SR OS": '/configure log syslog "tocsin" address 192.0.2.10 port 5514 severity info',
    "VRP": "info-center loghost 192.0.2.10 port 5514 level informational",
    "EOS": "logging host 192.0.2.10 5514; logging format hostname fqdn",
}
TRAPS: Lines = {
    "IOS-XR": "snmp-server user U GROUP v3 auth sha A priv aes 128 P; "
    "snmp-server host 192.0.2.10 traps version 3 priv U udp-port 5162",
    "Junos": "set snmp v3 usm local-engine user U authentication-sha authentication-password A; "
    "set snmp v3 target-address tocsin address 192.0.2.10 port 5162",
    "SR OS": '/configure log snmp-trap-group 98 trap-target "tocsin" address 192.0.2.10 port 5162 '
    'version snmpv3 notify-community "U" security-level privacy',
    "VRP": "snmp-agent target-host trap address udp-domain 192.0.2.10 udp-port 5162 "
    "params securityname U v3 privacy",
    "EOS": "snmp-server host 192.0.2.10 version 3 priv U udp-port 5162",
}
POLLED: Lines = {
    "IOS-XR": "snmp-server community C RO ACL; control-plane management-plane inband interface all allow SNMP",
    "Junos": "set snmp community C authorization read-only clients 192.0.2.10/32",
    "SR OS": '/configure system security snmp community "C" access-permissions r version v2c',
    "VRP": "snmp-agent community read C acl 2000; snmp-agent sys-info version v2c",
    "EOS": "snmp-server community C ro ACL",
}
NAMES: Lines = {
    "IOS-XR": "flow exporter-map X; version v9; options interface-table timeout 60",
    "Junos": "sends no names with its flows: poll it (kind snmp-poll, profile interface)",
    "SR OS": "sends no names: poll it (kind snmp-poll, profile interface), and let its flows number "
    "interfaces as SNMP does: /configure cflowd use-vrtr-if-index true",
    "VRP": "sends no names: poll it (kind snmp-poll, profile interface), and let its flows number "
    "interfaces as SNMP does: ip netstream export index-switch 32",
    "EOS": "flow tracking sends them with its templates: flow tracking sampled; tracker T; exporter X; "
    "template interval 60000; with sFlow poll it (kind snmp-poll, profile interface)",
}
