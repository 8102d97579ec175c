package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"gatewayd/lab"
)

// The peers' gateway forwards once more, with nft's flowtable: the packets of an established flow go from one device to the
// other past routing and netfilter, translated as conntrack says (nf_flow_table in the kernel). The rules are there only while
// that path is measured.
const (
	flowtableName  = "bench_flowtable"
	flowtableRules = `table ip ` + flowtableName + ` {
    flowtable established {
        hook ingress priority filter
        devices = { "lan0", "wan0" }
    }
    chain forward {
        type filter hook forward priority filter
        ip protocol tcp flow add @established
    }
}
`
)

// tryFlowtable finds out whether the kernel has flowtables.
func (w *world) tryFlowtable(ctx context.Context, o *options) error {
	remove, err := w.setFlowtable(ctx, o)
	if err != nil {
		_, cause, _ := strings.Cut(err.Error(), "Error: ")
		cause, _, _ = strings.Cut(cause, "\n")
		w.absent[viaFlowtable] = fmt.Errorf("the kernel takes no flowtable (CONFIG_NF_FLOW_TABLE): %s", cmp.Or(cause, err.Error()))
		return nil
	}
	return remove()
}

// setFlowtable puts the flowtable in place and returns what removes it.
func (w *world) setFlowtable(ctx context.Context, o *options) (remove func() error, err error) {
	rules, err := w.write("flowtable.nft", flowtableRules)
	if err != nil {
		return nil, err
	}
	if err := w.nft(ctx, o, w.peerGateway, "-f", rules); err != nil {
		return nil, err
	}
	return func() error { return w.nft(ctx, o, w.peerGateway, "delete", "table", "ip", flowtableName) }, nil
}

// nft runs nft in a namespace.
func (w *world) nft(ctx context.Context, o *options, ns *lab.Namespace, args ...string) error {
	path, err := o.packages.find(ctx, "nft")
	if err != nil {
		return err
	}
	p, err := startProgram(ctx, ns, nil, nil, append([]string{path}, args...)...)
	if err != nil {
		return err
	}
	<-p.done
	if !p.cmd.ProcessState.Success() {
		return fmt.Errorf("run nft %s: %s", args[0], p.log.String())
	}
	return nil
}
