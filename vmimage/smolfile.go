package vmimage

import (
	"bytes"
	"fmt"
	"path"

	"gatewayd/plan"
)

// smolfile renders a Smolfile, the TOML description from which smolvm makes a
// machine. It is a start: image and command are the operator's to add.
//
// The guest directory is mounted read-only and copied on the first start: an
// agent that could write to the host's copy could change the Smolfile, and with
// it what the host mounts next time. The network backend is named because the
// default one makes the host's own sockets speak for the guest, past every
// capture link.
func smolfile(p *plan.Plan, in Inputs) []byte {
	source := in.At + ".host"
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Bottle %s. Written by gatewayd; add image, cmd and resources.\n", p.Bottle)
	b.WriteString("net = true\n")
	b.WriteString("net_backend = \"virtio-net\" # the default backend would bypass the capture link\n")
	b.WriteString("env = [\n")
	for _, e := range p.Env {
		fmt.Fprintf(&b, "  %s,\n", tomlString(e.Name+"="+e.Resolve(in.At)))
	}
	b.WriteString("]\n\n[dev]\n")
	fmt.Fprintf(&b, "volumes = [%s]\n", tomlString(".:"+source+":ro"))
	b.WriteString("init = [\n")
	for _, line := range []string{
		"mkdir -p " + path.Dir(in.At) + " /etc/ssl/certs",
		"cp -R " + source + " " + in.At,
		"cat " + path.Join(in.At, plan.CAFile) + " >> /etc/ssl/certs/ca-certificates.crt",
	} {
		fmt.Fprintf(&b, "  %s,\n", tomlString(line))
	}
	b.WriteString("]\n")
	return b.Bytes()
}
