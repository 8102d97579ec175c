package main

import (
	"github.com/spf13/cobra"

	"gatewayd/cmd/gatewayd/internal/provision"
	"gatewayd/plan"
)

// planCommand shows what a manifest resolves to.
func (a *app) planCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "plan BOTTLE|FILE",
		Short: "show what a manifest resolves to",
		Long: `Plan prints the provision plan of a bottle: the merged routes, the guest's environment and
files, and in words what the choices mean. A plan holds references to secrets, never a secret.
The argument is a bottle whose manifest is in bottles_dir, or the path of a manifest (with a '/'
or ending in .yaml). Nothing on the machine is changed and no daemon is asked.`,
		Args: oneArg("a bottle or a manifest"),
	}
	form := outputFlag(c)
	c.RunE = func(_ *cobra.Command, args []string) error {
		p, err := a.find(args[0])
		if err != nil {
			return err
		}
		if *form == formatText {
			return p.Plan.Text(a.out)
		}
		return a.printJSON(struct {
			Digest string `json:"digest"`
			*plan.Plan
		}{p.Plan.Digest(), p.Plan})
	}
	return c
}

// find makes the plan of a bottle or of a manifest's path.
func (a *app) find(arg string) (provision.Planned, error) {
	cfg, err := a.config()
	if err != nil {
		return provision.Planned{}, err
	}
	return provision.Find(arg, cfg.BottlesDir, a.host)
}

// schemaCommand prints the JSON Schema of manifests.
func (a *app) schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "print the JSON Schema of manifests",
		Long: `Schema prints the JSON Schema of NAME.bottle.yaml, for editors. With the YAML language server,
the first line of a manifest may be
  # yaml-language-server: $schema=manifest.schema.json`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := a.out.Write(plan.Schema())
			return err
		},
	}
}
