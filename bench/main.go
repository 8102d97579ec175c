// Command bench measures gatewayd beside its peers, in network namespaces on one machine: the same loads through
// gatewayd's lanes, through HAProxy and nginx as Debian ships them, and through plain kernel forwarding, in interleaved
// rounds. It needs root, and leaves nothing behind but its report.
package main

import "os"

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}
