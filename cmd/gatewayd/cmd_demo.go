package main

import (
	"os"

	"github.com/spf13/cobra"

	"gatewayd/lab/demo"
)

// demoCommand shows what the gateway does.
func (a *app) demoCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "demo", Short: "show on one screen what the gateway does, and leave nothing behind (root)", Args: noArgs,
		Long: `Demo makes a small internet and a bottle in network namespaces of its own, runs this program
between them, lets real clients try what they should and should not be able to do, and says of each
whether it went as it should. It touches no network outside those namespaces. The exit code is 1 if
anything did not go as it should.`,
	}
	form := outputFlag(c)
	var machine, kernel string
	c.Flags().StringVar(&machine, "vm", "", "qemu: make the bottle a VM in place of a namespace")
	c.Flags().StringVar(&kernel, "kernel", "", "`directory` with the VM's kernel: boot/vmlinuz-* and lib/modules; without it, the host's")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if machine != "" && machine != "qemu" {
			return usagef("--vm %s: write qemu", machine)
		}
		self, err := os.Executable()
		if err != nil {
			return err
		}
		return demo.Run(c.Context(), demo.Options{Gatewayd: self, VM: machine, Kernel: kernel, Out: a.out, JSON: *form == formatJSON, Colour: a.terminal})
	}
	return c
}

// demoClientCommand is what demo starts inside the bottle.
func (a *app) demoClientCommand() *cobra.Command {
	return &cobra.Command{
		Use: demo.ClientCommand, Hidden: true, DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			if code := demo.Client(args, a.out); code != 0 {
				return &exitError{code: code}
			}
			return nil
		},
	}
}
