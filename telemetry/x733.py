"""X.733 as data: event types, severities and probable causes, and how other systems call severities.

Sources: ITU-T X.733, X.736 and M.3100 (names), IANA-ITU-ALARM-TC-MIB (numbers), ITU-ALARM-TC-MIB
ItuPerceivedSeverity; the severity words of each system are those of its own documentation.
"""

from collections.abc import Mapping
from types import MappingProxyType

SEVERITIES = ("critical", "major", "minor", "warning", "indeterminate")  # gravest first
CLEARED = "cleared"  # what systems without a state of its own send as a severity

# IANAItuEventType
EVENT_TYPES = MappingProxyType(
    {
        "other": 1,
        "communicationsAlarm": 2,
        "qualityOfServiceAlarm": 3,
        "processingErrorAlarm": 4,
        "equipmentAlarm": 5,
        "environmentalAlarm": 6,
        "integrityViolation": 7,
        "operationalViolation": 8,
        "physicalViolation": 9,
        "securityServiceOrMechanismViolation": 10,
        "timeDomainViolation": 11,
    }
)

# IANAItuProbableCause by event type, "number=name". A name that M.3100 and X.733 both have stands
# twice: its first number is the one that is sent.
_CAUSES = {
    "communicationsAlarm": """
        1=aIS  2=callSetUpFailure  3=degradedSignal  4=farEndReceiverFailure  5=framingError
        6=lossOfFrame  7=lossOfPointer  8=lossOfSignal  9=payloadTypeMismatch
        10=transmissionError  11=remoteAlarmInterface  12=excessiveBER  13=pathTraceMismatch
        14=unavailable  15=signalLabelMismatch  16=lossOfMultiFrame  17=receiveFailure
        18=transmitFailure  19=modulationFailure  20=demodulationFailure
        21=broadcastChannelFailure  22=connectionEstablishmentError
        23=invalidMessageReceived  24=localNodeTransmissionError
        25=remoteNodeTransmissionError  26=routingFailure  503=callEstablishmentError
        504=communicationsProtocolError  505=communicationsSubsystemFailure
        511=degradedSignal  512=dteDceInterfaceError  518=framingError  523=lanError
        525=localNodeTransmissionError  526=lossOfFrame  527=lossOfSignal
        540=remoteNodeTransmissionError
    """,
    "equipmentAlarm": """
        51=backplaneFailure  52=dataSetProblem  53=equipmentIdentifierDuplication
        54=externalIFDeviceProblem  55=lineCardProblem  56=multiplexerProblem
        57=nEIdentifierDuplication  58=powerProblem  59=processorProblem
        60=protectionPathFailure  61=receiverFailure  62=replaceableUnitMissing
        63=replaceableUnitTypeMismatch  64=synchronizationSourceMismatch  65=terminalProblem
        66=timingProblem  67=transmitterFailure  68=trunkCardProblem
        69=replaceableUnitProblem  70=realTimeClockFailure  71=antennaFailure
        72=batteryChargingFailure  73=diskFailure  74=frequencyHoppingFailure
        75=iODeviceError  76=lossOfSynchronisation  77=lossOfRedundancy
        78=powerSupplyFailure  79=signalQualityEvaluationFailure  80=transceiverFailure
        81=protectionMechanismFailure  82=protectingResourceFailure  500=adapterError
        510=dataSetOrModemError  514=equipmentMalfunction  521=inputOutputDeviceError
        522=inputDeviceError  529=multiplexerProblem  531=outputDeviceError
        533=powerProblems  535=processorProblems  538=receiveFailure  539=receiverFailure
        550=timingProblem  552=transmitFailure  553=transmitterFailure
    """,
    "environmentalAlarm": """
        101=airCompressorFailure  102=airConditioningFailure  103=airDryerFailure
        104=batteryDischarging  105=batteryFailure  106=commercialPowerFailure
        107=coolingFanFailure  108=engineFailure  109=fireDetectorFailure  110=fuseFailure
        111=generatorFailure  112=lowBatteryThreshold  113=pumpFailure  114=rectifierFailure
        115=rectifierHighVoltage  116=rectifierLowVoltage  117=ventilationSystemFailure
        118=enclosureDoorOpen  119=explosiveGas  120=fire  121=flood  122=highHumidity
        123=highTemperature  124=highWind  125=iceBuildUp  126=intrusionDetection
        127=lowFuel  128=lowHumidity  129=lowCablePressure  130=lowTemperature  131=lowWater
        132=smoke  133=toxicGas  134=coolingSystemFailure  135=externalEquipmentFailure
        136=externalPointFailure  513=enclosureDoorOpen  515=excessiveVibration
        517=fireDetected  519=heatingVentCoolingSystemProblem  520=humidityUnacceptable
        524=leakDetected  528=materialSupplyExhausted  534=pressureUnacceptable
        536=pumpFailure  548=temperatureUnacceptable  551=toxicLeakDetected
    """,
    "processingErrorAlarm": """
        151=storageCapacityProblem  152=memoryMismatch  153=corruptData  154=outOfCPUCycles
        155=sfwrEnvironmentProblem  156=sfwrDownloadFailure  157=lossOfRealTime
        158=applicationSubsystemFailure  159=configurationOrCustomisationError
        160=databaseInconsistency  161=fileError  162=outOfMemory  163=softwareError
        164=timeoutExpired  165=underlyingResourceUnavailable  166=versionMismatch
        501=applicationSubsystemFailure  506=configurationOrCustomizationError
        508=corruptData  509=cpuCyclesLimitExceeded  516=fileError  530=outOfMemory
        544=softwareError  545=softwareProgramAbnormallyTerminated  546=softwareProgramError
        547=storageCapacityProblem  554=underlyingResourceUnavailable  555=versionMismatch
    """,
    "qualityOfServiceAlarm": """
        201=bandwidthReduced  202=congestion  203=excessiveErrorRate
        204=excessiveResponseTime  205=excessiveRetransmissionRate
        206=reducedLoggingCapability  207=systemResourcesOverload  502=bandwidthReduced
        507=congestion  532=performanceDegraded  537=queueSizeExceeded
        541=resourceAtOrNearingCapacity  542=responseTimeExcessive
        543=retransmissionRateExcessive  549=thresholdCrossed
    """,
    "securityServiceOrMechanismViolation": """
        600=authenticationFailure  601=breachOfConfidentiality  610=nonRepudiationFailure
        614=unauthorizedAccessAttempt
    """,
    "physicalViolation": """
        602=cableTamper
    """,
    "timeDomainViolation": """
        603=delayedInformation  609=keyExpired  611=outOfHoursActivity
    """,
    "operationalViolation": """
        604=denialOfService  612=outOfService  613=proceduralError
    """,
    "integrityViolation": """
        605=duplicateInformation  606=informationMissing
        607=informationModificationDetected  608=informationOutOfSequence
        615=unexpectedInformation
    """,
    "other": """
        1024=other
    """,
}

CAUSE_NAMES: dict[int, str] = {}
CAUSE_NUMBERS: dict[str, int] = {}
EVENT_TYPE_OF: dict[str, str] = {}  # event type of a probable cause
for _event_type, _entries in _CAUSES.items():
    for _entry in _entries.split():
        _number, _, _name = _entry.partition("=")
        CAUSE_NAMES[int(_number)] = _name
        CAUSE_NUMBERS.setdefault(_name, int(_number))
        EVENT_TYPE_OF.setdefault(_name, _event_type)

# What each system calls our severities; "cleared" where it sends the end of an alarm as one.
SEVERITY_WORDS: Mapping[str, Mapping[str, int | str]] = MappingProxyType(
    {
        "itu-alarm-tc": {"critical": 3, "major": 4, "minor": 5, "warning": 6, "indeterminate": 2, "cleared": 1},
        "x733": {"critical": 1, "major": 2, "minor": 3, "warning": 4, "indeterminate": 0, "cleared": 5},
        "netcool": {"critical": 5, "major": 4, "minor": 3, "warning": 2, "indeterminate": 1, "cleared": 0},
        "spectrum": {"critical": 3, "major": 2, "minor": 1, "warning": 1, "indeterminate": 6, "cleared": 0},
        "ves": {"critical": "CRITICAL", "major": "MAJOR", "minor": "MINOR", "warning": "WARNING",
                "cleared": "NORMAL"},
        "servicenow": {"critical": 1, "major": 2, "minor": 3, "warning": 4, "indeterminate": 4, "cleared": 0},
        "pagerduty": {"critical": "critical", "major": "error", "minor": "warning", "warning": "warning",
                      "indeterminate": "info"},
        "syslog": {"critical": 2, "major": 3, "minor": 4, "warning": 5, "indeterminate": 6, "cleared": 6},
        "jira": {"critical": "P1", "major": "P2", "minor": "P3", "warning": "P4", "indeterminate": "P5"},
        "alertmanager": {"critical": "critical", "major": "major", "minor": "minor", "warning": "warning",
                         "indeterminate": "info"},
    }
)  # fmt: skip

_OURS = {
    system: {str(word).lower(): ours for ours, word in list(words.items())[::-1]}
    for system, words in SEVERITY_WORDS.items()
}


def severity_from(system: str, word: object) -> str:
    """Return our severity (or "cleared") for another system's word, "indeterminate" where unknown.

    >>> severity_from("netcool", 5), severity_from("ves", "NORMAL"), severity_from("spectrum", 9)
    ('critical', 'cleared', 'indeterminate')
    """
    return _OURS[system].get(str(word).lower(), "indeterminate")


def severity_for(system: str, severity: str) -> int | str:
    """Return what another system calls one of our severities or "cleared".

    >>> severity_for("servicenow", "major"), severity_for("netcool", "cleared")
    (2, 0)
    """
    words = SEVERITY_WORDS[system]
    return (
        words[severity]
        if severity in words
        else words["indeterminate" if "indeterminate" in words else "warning"]
    )
