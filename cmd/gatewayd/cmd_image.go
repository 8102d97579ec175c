package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"gatewayd/vmimage"
	"gatewayd/vmimage/oci"
)

// Forms in which an image is written, called as skopeo calls them.
const (
	imageTar    = "docker-archive"
	imageLayout = "oci"
)

// imageBuild is what `image` was asked for.
type imageBuild struct {
	base, out, form, tag, at string
}

// imageCommand puts what the VM must hold on top of a container image.
func (a *app) imageCommand() *cobra.Command {
	var b imageBuild
	c := &cobra.Command{
		Use:   "image BOTTLE --base IMAGE -o FILE [flags]",
		Short: "put what the bottle's VM must hold on top of a container image",
		Long: `Image reads a container image from a file and writes it with one more layer: the files of gatewayd
guest, and the bottle's authority in the trust stores that the image has (bundles and directories of
Debian, Alpine and Fedora, key stores of Java). The environment goes into the image's configuration.
Files of the agent belong to the user whom the image names.

IMAGE is what docker save or podman save wrote, or an OCI layout, a directory or a tar file. It is
read and never unpacked. FILE is a tar file for docker load, podman load or skopeo; with
--format oci it is a new directory with an OCI layout. The same image, plan and host give the same
digest. A plan that lends the guest a credential is refused, since an image would keep it.`,
		Args: oneArg("a bottle"),
		RunE: func(c *cobra.Command, args []string) error { return a.buildImage(c.Context(), b, args[0]) },
	}
	f := c.Flags()
	f.StringVar(&b.base, "base", "", "the `image` to begin with")
	f.StringVarP(&b.out, "out", "o", "", "`file` or directory to write")
	f.StringVar(&b.form, "format", imageTar, imageTar+" or "+imageLayout)
	f.StringVar(&b.tag, "tag", "", "what to call the image, `NAME:TAG`; without it, gatewayd-BOTTLE:latest")
	f.StringVar(&b.at, "at", vmimage.DefaultAt, "where the guest will find its files")
	return c
}

func (b imageBuild) check() error {
	switch {
	case b.base == "":
		return usagef("image needs --base IMAGE: what docker save or podman save wrote, or an OCI layout")
	case b.out == "":
		return usagef("image needs -o FILE: where to write the image")
	case b.form != imageTar && b.form != imageLayout:
		return usagef("--format %s: write %s or %s", b.form, imageTar, imageLayout)
	case !filepath.IsAbs(b.at):
		return usagef("--at %s: write an absolute path, as the guest will see it", b.at)
	}
	return nil
}

func (a *app) buildImage(ctx context.Context, b imageBuild, bottle string) (err error) {
	if err := b.check(); err != nil {
		return err
	}
	cfg, err := a.config()
	if err != nil {
		return err
	}
	p, err := a.find(bottle)
	if err != nil {
		return err
	}
	base, err := oci.Open(ctx, b.base)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, base.Close()) }()
	in, err := guestInputs(ctx, cfg, p, b.at)
	if err != nil {
		return err
	}
	made, err := base.Add(ctx, p.Plan, in)
	if err != nil {
		return err
	}
	write := oci.WriteTar
	if b.form == imageLayout {
		write = oci.WriteLayout
	}
	tag := cmp.Or(b.tag, "gatewayd-"+p.Plan.Bottle+":latest")
	if err := write(b.out, made.Image, tag); err != nil {
		return err
	}
	return a.showImage(made, b.out, tag)
}

// showImage says what was made.
func (a *app) showImage(made *oci.Result, out, tag string) error {
	digest, err := made.Image.Digest()
	if err != nil {
		return err
	}
	for _, name := range made.Changed {
		fmt.Fprintln(a.out, name)
	}
	for _, note := range made.Notes {
		fmt.Fprintln(a.out, "note: "+note)
	}
	_, err = fmt.Fprintf(a.out, "\n%s holds %s, %s.\n", out, tag, digest)
	return err
}
