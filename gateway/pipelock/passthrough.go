package pipelock

import "gatewayd/gateway/routes"

// PassthroughHosts returns the hosts of the routes with TLSPassthrough, in
// order and each once. It reads that field and nothing else: those hosts are
// never scanned, whatever else their routes say.
func PassthroughHosts(rs []routes.Route) []string {
	var hosts []string
	seen := make(map[string]bool)
	for _, r := range rs {
		if r.TLSPassthrough && !seen[r.Host] {
			seen[r.Host] = true
			hosts = append(hosts, r.Host)
		}
	}
	return hosts
}
