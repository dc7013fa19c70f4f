package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// lockFile marks a directory as owned while it is locked.
const lockFile = "lock"

// Dir is a private directory for one server.
type Dir struct {
	Path string
	lock *os.File
}

// NewDir makes a directory base/prefix* that any user may look into, after
// removing those of the same prefix whose owners are dead. An empty base is
// the system's temporary directory; socket paths need it to be short.
func NewDir(base, prefix string) (*Dir, error) {
	if base == "" {
		base = os.TempDir()
	}
	sweep(base, prefix)
	for range 10 {
		dir, err := newDir(base, prefix)
		if err == nil || !errors.Is(err, errSwept) {
			return dir, err
		}
	}
	return nil, fmt.Errorf("make a private directory in %s: %w", base, errSwept)
}

// errSwept says that somebody's sweep took the directory between its making
// and its locking.
var errSwept = errors.New("directory was swept by another process")

func newDir(base, prefix string) (*Dir, error) {
	path, err := os.MkdirTemp(base, prefix)
	if err != nil {
		return nil, fmt.Errorf("make a private directory: %w", err)
	}
	if err := os.Chmod(path, 0o755); err != nil { //nolint:gosec // servers run as another user
		return nil, fmt.Errorf("make a private directory: %w", err)
	}
	lock, err := tryLock(filepath.Join(path, lockFile), os.O_CREATE)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(lock.Name()); err != nil {
		return nil, errors.Join(errSwept, lock.Close())
	}
	return &Dir{Path: path, lock: lock}, nil
}

// tryLock takes the lock without waiting; errSwept if somebody has it.
func tryLock(path string, flag int) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|flag, 0o644) //nolint:gosec // below a directory of ours
	if err != nil {
		return nil, fmt.Errorf("lock private directory: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(errSwept, file.Close())
	}
	return file, nil
}

// Remove removes the directory and gives up its ownership. Processes that use
// it must have ended.
func (d *Dir) Remove() error {
	return errors.Join(os.RemoveAll(d.Path), d.lock.Close())
}

// Abandoned says whether the owner of the directory at path is dead.
func Abandoned(path string) bool {
	lock, err := tryLock(filepath.Join(path, lockFile), 0)
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	_ = lock.Close()
	return true
}

// sweep removes what dead owners left. It is best effort: what can't be
// removed now is somebody else's, or is tried again next time.
func sweep(base, prefix string) {
	paths, _ := filepath.Glob(filepath.Join(base, prefix+"*"))
	for _, path := range paths {
		lock, err := tryLock(filepath.Join(path, lockFile), 0)
		if err != nil {
			continue
		}
		killUsers(path)
		_ = os.RemoveAll(path)
		_ = lock.Close()
	}
}
