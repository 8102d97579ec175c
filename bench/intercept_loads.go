package main

import "slices"

// Paths of the loads that are decrypted on the way, beside HAProxy's.
const (
	viaNginxTLS  = "nginx-reencrypt"
	viaSquid     = "squid-bump"
	viaMitmproxy = "mitmproxy"
)

// plainName is a second name of the web server: what goes there is decrypted as what goes to apiName is, and not scanned.
const plainName = "plain.bench.example"

// manyIdle is how many connections the larger of the two loads of idle ones holds, in bottles of manyPerBottle each.
const (
	manyIdle      = 5000
	manyPerBottle = 1000 // below what one bottle may have at once by default (1,024)
	manyIdleName  = "h1-idle-5000"
)

// Units of CPU time in the loads that are decrypted.
var (
	tenThousand = unit{"s per 10,000 requests", 1e4}
	handshakes  = unit{"s per 1,000 handshakes", 1e3}
)

// interceptLoads are those that are decrypted on the way, for all peers that can carry them.
func interceptLoads() []load {
	// Every peer; those that resume TLS sessions (squid did not when tried, mitmproxy was not tried); those
	// that speak HTTP/2 with the client where the server does not (squid never does, mitmproxy was not tried).
	all := []string{viaGatewayd, viaUnscanned, viaReencrypt, viaNginxTLS, viaSquid, viaMitmproxy}
	resuming := all[:4]
	h2 := all[:4]
	both := []string{viaGatewayd, viaReencrypt} // nginx asks no server over HTTP/2
	owned := func(paths []string) []string {
		return slices.DeleteFunc(slices.Clone(paths), func(v string) bool { return v == viaUnscanned })
	}
	return []load{
		{name: idleName, title: "Memory for 1,000 decrypted connections, idle after one request each", value: "KiB each", unit: tooFew,
			host: apiName, paths: owned(all), once: true, memory: true},
		{name: manyIdleName, title: "Memory for 5,000 decrypted connections, idle after one request each (gatewayd: in five bottles)", value: "KiB each", unit: tooFew,
			host: apiName, paths: owned(h2), once: true, memory: true},
		{name: h2IdleName, title: "Memory for 300 decrypted connections of HTTP/2, idle after one request each, beside 300 others (gatewayd: in five bottles)", value: "KiB each", unit: tooFew,
			host: apiName, paths: []string{viaGatewayd, viaReencrypt}, once: true, memory: true, held: heldH2},
		{name: socketIdleName, title: "Memory for 250 decrypted WebSockets, each with its connection to the server, silent after one message there and back, beside 250 others", value: "KiB each", unit: tooFew,
			host: scannedName, paths: []string{viaGatewayd, viaReencrypt}, once: true, memory: true, held: heldSockets},
		{name: "h1-small", title: "Decrypted, HTTP/1.1, 1 KB, 16 connections (wrk)", value: "req/s",
			unit: tenThousand, host: apiName, wrk: true, paths: all, scale: 1},
		{name: "h1-64k", title: "Decrypted, HTTP/1.1, 64 KB, 16 connections (wrk)", value: "req/s",
			unit: tenThousand, host: apiName, wrk: true, paths: all, scale: 1, file: middlePath},
		{name: "h1-full", title: "Decrypted, full handshakes: connect, a request of 1 KB, close; 4 at once", value: "conn/s",
			unit: handshakes, host: apiName, paths: owned(all), scale: 1},
		{name: resumedName, title: "Decrypted, handshakes of a client that would resume its session: connect, a request of 1 KB, close; 4 at once", value: "conn/s",
			unit: handshakes, host: apiName, paths: owned(resuming), scale: 1},
		{name: "h1-bulk", title: "Decrypted, HTTP/1.1, 100 MB down", value: "Gbit/s",
			unit: gigabytes, host: apiName, paths: all, scale: gigabit},
		{name: "h2-one", title: "Decrypted, HTTP/2, 1 KB, one connection, one stream (h2load)", value: "req/s",
			unit: tenThousand, host: apiName, paths: h2, scale: 1, streams: 1, h2load: true},
		{name: "h2-small", title: "Decrypted, HTTP/2, 1 KB, one connection with 16 streams (h2load)", value: "req/s",
			unit: tenThousand, host: apiName, paths: h2, scale: 1, streams: 16, h2load: true},
		{name: "h2-bulk", title: "Decrypted, HTTP/2, 100 MB down", value: "Gbit/s",
			unit: gigabytes, host: apiName, paths: owned(h2), scale: gigabit},
		{name: "h2-both-one", title: "Decrypted, HTTP/2 on both sides, 1 KB, one connection, one stream (h2load)", value: "req/s",
			unit: tenThousand, host: bothName, paths: both, scale: 1, streams: 1, h2load: true},
		{name: "h2-both", title: "Decrypted, HTTP/2 on both sides, 1 KB, one connection with 16 streams (h2load)", value: "req/s",
			unit: tenThousand, host: bothName, paths: both, scale: 1, streams: 16, h2load: true},
		{name: "h2-both-bulk", title: "Decrypted, HTTP/2 on both sides, 100 MB down", value: "Gbit/s",
			unit: gigabytes, host: bothName, paths: both, scale: gigabit},
		{name: socketName, title: "Decrypted, WebSocket: a message of 128 bytes there and back", value: "µs",
			unit: tenThousand, host: scannedName, paths: all, latency: true},
		{name: "h1-upload", title: "Decrypted, HTTP/1.1, 100 MB of a model's input up", value: "Gbit/s",
			unit: gigabytes, host: scannedName, paths: all, scale: gigabit},
		{name: "h2-upload", title: "Decrypted, HTTP/2, 100 MB of a model's input up", value: "Gbit/s",
			unit: gigabytes, host: scannedName, paths: h2, scale: gigabit},
		{name: "h1-sse", title: "Decrypted, HTTP/1.1, from a request of 10 KB to the first event of its answer", value: "µs",
			unit: tenThousand, host: scannedName, paths: all, latency: true},
	}
}
