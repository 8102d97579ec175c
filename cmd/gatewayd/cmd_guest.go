package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"gatewayd/cmd/gatewayd/internal/config"
	"gatewayd/cmd/gatewayd/internal/provision"
	"gatewayd/gateway/inject"
	"gatewayd/gateway/routes"
	gwtls "gatewayd/gateway/tls"
	"gatewayd/vmimage"
)

// guestCommand writes what the VM must hold.
func (a *app) guestCommand() *cobra.Command {
	var out, at string
	c := &cobra.Command{
		Use:   "guest BOTTLE -o DIR [--at PATH]",
		Short: "write the files that the bottle's VM must hold",
		Long: `Guest writes into DIR what the VM needs: the bottle's certificate authority and a bundle with it,
the environment that makes each client trust it, the agent's files with dummies in place of
credentials, and the network's set-up. Mount or copy DIR into the VM at PATH. The authority and
the address are made if they do not exist yet, and kept in state_dir.`,
		Args: oneArg("a bottle"),
		RunE: func(c *cobra.Command, args []string) error {
			if out == "" {
				return usagef("guest needs -o DIR: where to write the files")
			}
			return a.writeGuest(c.Context(), args[0], out, at)
		},
	}
	c.Flags().StringVarP(&out, "out", "o", "", "directory to write to; it is made if need be")
	c.Flags().StringVar(&at, "at", "/etc/gatewayd", "where the guest will find the directory")
	return c
}

func (a *app) writeGuest(ctx context.Context, bottle, out, at string) error {
	if !filepath.IsAbs(at) {
		return usagef("--at %s: write an absolute path, as the guest will see it", at)
	}
	cfg, err := a.config()
	if err != nil {
		return err
	}
	p, err := a.find(bottle)
	if err != nil {
		return err
	}
	in, err := guestInputs(ctx, cfg, p, at)
	if err != nil {
		return err
	}
	files, err := vmimage.GuestFiles(p.Plan, in)
	if err != nil {
		return err
	}
	if err := vmimage.Write(out, files); err != nil {
		return err
	}
	t := table{head: []string{"MODE", "SIZE", "FILE"}}
	for _, f := range files {
		t.add(text(f.Mode.Perm()), text(size(int64(len(f.Data)))), text(filepath.Join(out, filepath.FromSlash(f.Path))))
	}
	if err := t.write(a.out, a.terminal); err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.out, "\nMount or copy %s into the VM at %s; its processes need the variables of %s.\n", out, at, filepath.Join(at, "env"))
	return err
}

// guestInputs gathers what the plan cannot know.
func guestInputs(ctx context.Context, cfg config.Config, p provision.Planned, at string) (vmimage.Inputs, error) {
	link, err := provision.Link(cfg, p.Plan)
	if err != nil {
		return vmimage.Inputs{}, err
	}
	ca, err := provision.CA(cfg, p.Plan.Bottle)
	if err != nil {
		return vmimage.Inputs{}, err
	}
	roots, err := gwtls.LoadRoots(cfg.UpstreamRoots)
	if err != nil {
		return vmimage.Inputs{}, err
	}
	return vmimage.Inputs{
		CAPEM: ca.CertPEM(), SystemRootsPEM: roots.PEM(), At: at, Network: provision.Network(link),
		Secret: func(ref routes.SecretRef) (string, error) {
			src, err := inject.NewSource(ref)
			if err != nil {
				return "", err
			}
			s, err := src.Secret(ctx)
			if err != nil {
				return "", err
			}
			return s.Reveal(), nil
		},
	}, nil
}
