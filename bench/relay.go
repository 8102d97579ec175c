package main

import "net/netip"

// relayAddr is an address of the internet that no fast path takes, since it is private: gatewayd relays to it.
var relayAddr = netip.MustParseAddr("10.77.0.9")

// relayWebAddr is another, where the web server is.
var relayWebAddr = netip.MustParseAddr("10.77.0.10")

// isGatewayd tells whether gatewayd carries a path.
func isGatewayd(via string) bool {
	_, open := openPaths[via]
	return open || via == viaGatewayd || via == viaRelay || via == viaUnscanned || via == viaQuiet || isVM(via) && via != viaVMKernel
}

// over is the load as a path has it.
func (l load) over(via string) load {
	switch via {
	case viaRelay:
		l.host = relayName
	case viaUnscanned:
		l.host = map[string]string{apiName: plainName, scannedName: unscannedName}[l.host]
	case viaQuiet:
		l.streams = quietStreams
	}
	if isVM(via) {
		l.host = l.vmName(via)
	}
	return l
}

// lessIsBetter says how the load's value is to be read.
func (l load) lessIsBetter() bool { return l.latency || l.memory || l.costs }
