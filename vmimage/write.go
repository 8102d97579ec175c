package vmimage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Write puts files below dir, which it makes if need be, each by a new file
// renamed into place: whoever reads sees the old content or the new, never a
// part. New directories get mode 0700; files get theirs whatever the umask.
// Files that are not in the list are left alone. On error some files may be
// new and the others old. It follows no symbolic link that leaves dir.
func Write(dir string, files []File) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("write guest files: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("write guest files: %w", err)
	}
	defer root.Close()
	for _, f := range files {
		if err := writeFile(root, f); err != nil {
			return fmt.Errorf("write guest file %s: %w", f.Path, err)
		}
	}
	return nil
}

// writeFile writes one file beside its name and renames it.
func writeFile(root *os.Root, f File) (err error) {
	if !fs.ValidPath(f.Path) || f.Path == "." {
		return errors.New("the path leaves the directory")
	}
	name := filepath.FromSlash(f.Path)
	if parent := filepath.Dir(name); parent != "." {
		if err := root.MkdirAll(parent, 0o700); err != nil {
			return err
		}
	}
	temp := name + ".new"
	// What an interrupted run left behind is in the way of O_EXCL.
	if err := root.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	out, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = root.Remove(temp)
		}
	}()
	_, err = out.Write(f.Data)
	if err == nil {
		err = out.Chmod(f.Mode.Perm())
	}
	if err == nil {
		err = out.Sync()
	}
	if closed := out.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	return root.Rename(temp, name)
}
