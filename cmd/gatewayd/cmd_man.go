package main

import (
	"github.com/spf13/cobra"
)

// manCommand prints the manual page, which `make generate` writes to docs/gatewayd.8.
func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use: "man", Hidden: true, Short: "print the manual page", Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := a.out.Write(manual(c.Root()))
			return err
		},
	}
}
