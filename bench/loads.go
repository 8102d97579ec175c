package main

import (
	"slices"
	"strings"
)

// unit is what CPU time is given for.
type unit struct {
	name  string
	scale float64 // from seconds for one of Result.Units; 0 where there are too few to tell
}

var (
	requests    = unit{"µs per request", 1e6}
	connections = unit{"µs per connection", 1e6}
	gigabytes   = unit{"s per GB", 1e9}
	tooFew      = unit{"too few to tell", 0}
)

// load is one kind of work. Its value is a time in microseconds where less is better, or a rate.
type load struct {
	name  string // stable, for JSON and for -only
	title string
	value string // unit of the value
	unit  unit
	host  string
	wrk   bool
	paths []string
	// latency says that the value is the median of single ones in microseconds.
	latency bool
	// memory says that the value is memory for each connection, and less is better.
	memory bool
	// costs says that the value is what the sample itself found, and less is better.
	costs bool
	// scale turns units per second into the value.
	scale float64
	// held, if not 0, is how many connections a load of memory holds, twice, in a process that is started anew.
	held int
	// once says that only the first round measures it.
	once    bool
	streams int
	file    string // path of what wrk gets; the small one when empty
	h2load  bool
}

// vm says whether the load runs in a VM.
func (l load) vm() bool { return strings.HasPrefix(l.name, "vm-") }

// passes says whether a fast path carries the load: gatewayd's process has next to nothing to do with it, so that whatever else it does
// weighs the more.
func (l load) passes() bool {
	return slices.Contains(l.paths, viaGatewayd) && (l.host == rawName || l.host == webName)
}

// reference is the path that the others are compared with.
func (l load) reference() string {
	if l.vm() {
		return viaVMKernel
	}
	return viaGatewayd
}

// Paths: what carries a load.
const (
	viaGatewayd  = "gatewayd"
	viaHAProxy   = "haproxy"
	viaNginx     = "nginx"
	viaKernel    = "kernel"
	viaFlowtable = "flowtable" // measured only when asked for: few kernels have it
	viaReencrypt = "haproxy-reencrypt"
	viaRelay     = "gatewayd-relay" // gatewayd, to an address that it does not pin
	viaIperf     = "iperf3"         // iperf3's own client and server, over the forwarding kernel
)

// Paths from a VM: the bottle's card through gatewayd, and the plain one.
const (
	viaVMFast      = "vm-fastpath"
	viaVMRelay     = "vm-relay"
	viaVMIntercept = "vm-intercept"
	viaVMKernel    = "vm-kernel"
)

var vmPaths = []string{viaVMFast, viaVMRelay, viaVMIntercept, viaVMKernel}

const gigabit = 8e-9

// nearName is the load whose two ends share a CPU.
const nearName = "rr-one"

// idleName and h2IdleName are the loads that hold decrypted connections.
const (
	idleName   = "h1-idle"
	h2IdleName = "h2-idle"
)

func allLoads() []load {
	passed := []string{viaGatewayd, viaHAProxy, viaNginx, viaKernel}
	relayed := append([]string{viaGatewayd, viaRelay}, passed[1:]...)
	forwarded := append(slices.Clone(relayed), viaFlowtable)
	calibrated := append(slices.Clone(forwarded), viaIperf)
	passedVM := []string{viaVMFast, viaVMRelay, viaVMKernel}
	all := []load{
		openLoad(),
		{name: "hold", title: "Memory for 1,000 open connections, before any other load", value: "KiB each", unit: tooFew,
			host: rawName, paths: []string{viaGatewayd, viaRelay, viaHAProxy, viaNginx}, once: true, memory: true},
		{name: "rr", title: "Request and response of 128 bytes over one connection, each end pinned to a CPU of its own", value: "µs",
			unit: requests, host: rawName, paths: forwarded, latency: true},
		{name: nearName, title: "Request and response of 128 bytes over one connection, both ends pinned to one CPU", value: "µs",
			unit: requests, host: rawName, paths: forwarded, latency: true},
		{name: "crr", title: "Connect, hello, answer, close; 4 at once", value: "conn/s",
			unit: connections, host: rawName, paths: relayed, scale: 1},
		{name: "tls-new", title: "New TLS connections: DNS known, full handshake, a request of 1 KB, close; 4 at once", value: "conn/s",
			unit: connections, host: webName, paths: passed, scale: 1},
		{name: "up", title: "Bulk from the bottle", value: "Gbit/s", unit: gigabytes, host: rawName, paths: calibrated, scale: gigabit},
		{name: "down", title: "Bulk to the bottle", value: "Gbit/s", unit: gigabytes, host: rawName, paths: calibrated, scale: gigabit},
		{name: "up" + oneSuffix, title: "Bulk from the bottle, both ends pinned to one CPU", value: "Gbit/s", unit: gigabytes, host: rawName, paths: forwarded, scale: gigabit},
		{name: "down" + oneSuffix, title: "Bulk to the bottle, both ends pinned to one CPU", value: "Gbit/s", unit: gigabytes, host: rawName, paths: forwarded, scale: gigabit},
		volumeLoad(),
		{name: "first", title: "First connection to a name: DNS, SYN, hello, answer", value: "µs",
			unit: tooFew, host: rawName, paths: passed, latency: true},
		{name: "https", title: "wrk over HTTPS to nginx, 1 KB, 16 connections, not decrypted on the way", value: "req/s",
			unit: requests, host: webName, wrk: true, paths: passed, scale: 1},

		{name: "vm-rr", title: "From a VM: request and response of 128 bytes over one connection", value: "µs",
			unit: requests, host: rawName, paths: passedVM, latency: true},
		{name: "vm-up", title: "From a VM: bulk", value: "Gbit/s", unit: gigabytes, host: rawName, paths: passedVM, scale: gigabit},
		{name: "vm-down", title: "To a VM: bulk", value: "Gbit/s", unit: gigabytes, host: rawName, paths: passedVM, scale: gigabit},
		{name: "vm-iperf3", title: "From a VM: iperf3, which sends no hello, so a route of `protocol: tcp`", value: "Gbit/s",
			unit: gigabytes, host: iperfName, paths: []string{viaVMRelay, viaVMKernel}, scale: gigabit},
		{name: "vm-https", title: "From a VM: wrk over HTTPS to nginx, 1 KB, 16 connections", value: "req/s",
			unit: requests, host: webName, wrk: true, paths: vmPaths, scale: 1},
		{name: "vm-h1-bulk", title: "To a VM: HTTP/1.1 over TLS, 8 MB", value: "Gbit/s",
			unit: gigabytes, host: apiName, paths: []string{viaVMIntercept, viaVMKernel}, scale: gigabit},
	}
	if hasBBR() {
		all = append(all,
			load{name: "up" + bbrSuffix, title: "Bulk from the bottle, the sender with BBR", value: "Gbit/s", unit: gigabytes, host: rawName, paths: calibrated, scale: gigabit},
			load{name: "down" + bbrSuffix, title: "Bulk to the bottle, the sender with BBR", value: "Gbit/s", unit: gigabytes, host: rawName, paths: calibrated, scale: gigabit})
	}
	return append(all, append(interceptLoads(), scanLoads()...)...)
}
