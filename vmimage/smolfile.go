package vmimage

import (
	"bytes"
	"fmt"
	"path"

	"gatewayd/plan"
)

// smolfile renders a Smolfile, the TOML description from which smolvm makes a
// machine. It is a start: image and command are the operator's to add. smolvm
// refuses a file with a key that it does not know (crates/smolvm-smolfile), so
// that only such keys stand here as it has; a test holds the list.
//
// The guest directory is mounted read-only and copied on the first start: an
// agent that could write to the host's copy could change the Smolfile, and with
// it what the host mounts next time. No key names the network: smolvm's own
// network speaks by sockets of whatever namespace smolvm is started in, past
// every tap, and only a start in the bottle's namespace puts them behind the
// capture link.
func smolfile(p *plan.Plan, in Inputs) []byte {
	source := in.At + ".host"
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Bottle %s. Written by gatewayd; add image, cmd and resources.\n", p.Bottle)
	b.WriteString("# Start it in the bottle's network namespace alone: elsewhere nothing would hold it.\n")
	b.WriteString("net = true\n")
	b.WriteString("env = [\n")
	for _, e := range p.Env {
		fmt.Fprintf(&b, "  %s,\n", tomlString(e.Name+"="+e.Resolve(in.At)))
	}
	b.WriteString("]\n\n[dev]\n")
	fmt.Fprintf(&b, "volumes = [%s]\n", tomlString(".:"+source+":ro"))
	once := "[ -e " + in.At + " ] || { mkdir -p " + path.Dir(in.At) + " /etc/ssl/certs && cp -R " + source + " " + in.At +
		" && cat " + path.Join(in.At, plan.CAFile) + " >> /etc/ssl/certs/ca-certificates.crt; }"
	fmt.Fprintf(&b, "init = [%s] # runs at every start\n", tomlString(once))
	return b.Bytes()
}
