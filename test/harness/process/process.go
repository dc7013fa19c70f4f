// Package process runs the servers' processes so that none outlives whoever
// started it, however that one ends, and gives them directories that are
// removed even then.
//
// A Child ends with its parent: on Linux the kernel signals it when the parent
// dies. A Dir is locked by its owner; the lock falls with the owner, and the
// next NewDir removes what dead owners left behind, processes included.
package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"time"
)

// Child is a started process.
type Child struct {
	cmd  *exec.Cmd
	done chan struct{} // closed once the process has been waited for
	err  error         // of Wait; read after done
}

// Start starts cmd in a process group of its own, so that Ctrl-C at a terminal
// reaches the parent only, and has it signalled with onParentDeath when the
// parent dies (Linux only). cmd.SysProcAttr may carry further attributes.
func Start(cmd *exec.Cmd, onParentDeath syscall.Signal) (*Child, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	setDeathSignal(cmd.SysProcAttr, onParentDeath)
	c := &Child{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go c.run(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return c, nil
}

// run owns the process from start to end. The death signal is sent when the
// forking thread ends, not only the process: so the thread is kept.
func (c *Child) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := c.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	c.err = c.cmd.Wait()
	close(c.done)
}

// Pid is the process id.
func (c *Child) Pid() int { return c.cmd.Process.Pid }

// Done is closed when the process has ended.
func (c *Child) Done() <-chan struct{} { return c.done }

// ExitCode waits for the end and returns the exit code, or -1 after a signal.
func (c *Child) ExitCode() int {
	<-c.done
	return c.cmd.ProcessState.ExitCode()
}

// Err waits for the end and tells how the process ended; nil is exit code 0.
func (c *Child) Err() error {
	<-c.done
	return c.err
}

// Signal sends sig to the process. A process that has ended is no error.
func (c *Child) Signal(sig syscall.Signal) error {
	if err := c.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s to process %d: %w", sig, c.Pid(), err)
	}
	return nil
}

// SignalTree sends sig to the process first, so that it makes no more children
// meanwhile if sig stops or kills it, then to all its descendants (Linux only).
func (c *Child) SignalTree(sig syscall.Signal) error {
	before := descendants(c.Pid())
	if err := c.Signal(sig); err != nil {
		return err
	}
	for _, pid := range merge(before, descendants(c.Pid())) {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("signal %s to process %d: %w", sig, pid, err)
		}
	}
	return nil
}

func merge(a, b []int) []int {
	all := append(a, b...)
	slices.Sort(all)
	return slices.Compact(all)
}

// KillTree kills the process and all its descendants (Linux only) and waits
// until none of them runs any more: a server that starts again refuses to while
// one is still attached to its predecessor's memory.
func (c *Child) KillTree(wait time.Duration) error {
	below := descendants(c.Pid())
	if err := c.SignalTree(syscall.SIGKILL); err != nil {
		return err
	}
	<-c.done
	deadline := time.After(wait)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for slices.ContainsFunc(below, running) {
		select {
		case <-deadline:
			return fmt.Errorf("a child of process %d does not end", c.Pid())
		case <-tick.C:
		}
	}
	return nil
}

// Step is one attempt to end a process: a signal, and how long to wait for it.
type Step struct {
	Signal syscall.Signal
	Wait   time.Duration
}

// End signals until the process has ended. It returns an error if it outlives
// every step.
func (c *Child) End(steps ...Step) error {
	for _, step := range steps {
		if err := c.Signal(step.Signal); err != nil {
			return err
		}
		select {
		case <-c.done:
			return nil
		case <-time.After(step.Wait):
		}
	}
	return fmt.Errorf("process %d does not end", c.Pid())
}
