package maven

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// Once makes sure that dir exists, filled by fill. Where it exists already,
// nothing is done; else fill gets a scratch directory beside it, which becomes
// dir when fill has returned nil: dir is there whole or not at all. Of several
// processes that call Once for the same dir, one fills it and the others wait.
func Once(dir string, fill func(scratch string) error) error {
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil { //nolint:gosec // servers run as another user
		return fmt.Errorf("make the cache: %w", err)
	}
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o644) //nolint:gosec // below the cache
	if err != nil {
		return fmt.Errorf("lock the cache: %w", err)
	}
	defer lock.Close() //nolint:errcheck // ends the lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock the cache: %w", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return fillAndRename(dir, fill)
}

func fillAndRename(dir string, fill func(scratch string) error) error {
	scratch, err := os.MkdirTemp(filepath.Dir(dir), "fetch-")
	if err != nil {
		return fmt.Errorf("fill the cache: %w", err)
	}
	defer os.RemoveAll(scratch)                      //nolint:errcheck // gone already when all went well
	if err := os.Chmod(scratch, 0o755); err != nil { //nolint:gosec // servers run as another user
		return fmt.Errorf("fill the cache: %w", err)
	}
	if err := fill(scratch); err != nil {
		return err
	}
	if err := os.Rename(scratch, dir); err != nil {
		return fmt.Errorf("fill the cache: %w", err)
	}
	return nil
}
