// Package pgembed finds Postgres binaries and runs private servers from them,
// as root or as an ordinary user, on Linux and macOS.
//
// A server of this package lives as long as its Server, or the process that
// holds it, whichever ends first: nothing is left running, and what a killed
// process left on disk is removed by the next one.
//
// It trusts every loopback connection and by default does not sync to disk:
// it is for demonstrations and tests.
package pgembed

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/walpost/walpost/test/harness/process"
)

// Superuser is the role that owns every server's databases; it needs no
// password.
const Superuser = "postgres"

// startTimeout bounds how long a server may take until it accepts connections.
const startTimeout = 60 * time.Second

// Config says what to run.
type Config struct {
	// Bin is the bin directory, from Find.
	Bin string
	// Port is the TCP port on 127.0.0.1; 0 picks a free one, which the server
	// then keeps over restarts.
	Port int
	// Settings go to the command line as -c name=value, over the defaults:
	// wal_level=logical, fsync=off, UTC.
	Settings map[string]string
	// Backup is a tar of a data directory to start with instead of a fresh
	// cluster; it may be a standby's.
	Backup []byte
}

// Server is a private server. Its methods are not for concurrent use.
type Server struct {
	config Config
	dir    *process.Dir
	user   *account
	child  *process.Child // nil: not running
}

// Start makes a fresh cluster and starts a server on it. It returns when
// connections are accepted.
func Start(ctx context.Context, config Config) (*Server, error) {
	account, err := serverAccount()
	if err != nil {
		return nil, err
	}
	// The directory's path must leave room for a socket's name: 107 bytes.
	dir, err := process.NewDir("", "walpost-pg-")
	if err != nil {
		return nil, err
	}
	s := &Server{config: config, dir: dir, user: account}
	if err := s.begin(ctx); err != nil {
		return nil, errors.Join(err, dir.Remove())
	}
	return s, nil
}

func (s *Server) begin(ctx context.Context) error {
	if err := s.fill(ctx); err != nil {
		return err
	}
	if s.config.Port != 0 {
		return s.Start(ctx)
	}
	for {
		port, err := process.FreePort()
		if err != nil {
			return err
		}
		s.config.Port = port
		if err := s.Start(ctx); !errors.Is(err, errPortTaken) {
			return err
		}
	}
}

// Port is the server's TCP port on 127.0.0.1.
func (s *Server) Port() int { return s.config.Port }

// URL is the address of a database on the server.
func (s *Server) URL(database string) string {
	return fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable", Superuser, s.address(), database)
}

func (s *Server) address() string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.config.Port))
}

// Pid is the postmaster's process id; 0 while the server is down.
func (s *Server) Pid() int {
	if s.child == nil {
		return 0
	}
	return s.child.Pid()
}

// Done is closed when the server that was started last has ended; nil while it
// is down.
func (s *Server) Done() <-chan struct{} {
	if s.child == nil {
		return nil
	}
	return s.child.Done()
}

// Log is what the server has written so far.
func (s *Server) Log() string {
	log, err := os.ReadFile(s.logPath())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err.Error()
	}
	return string(log)
}

func (s *Server) data() string    { return filepath.Join(s.dir.Path, "data") }
func (s *Server) logPath() string { return filepath.Join(s.dir.Path, "log") }

// errPortTaken says that somebody else listens on the chosen port.
var errPortTaken = errors.New("port is taken")

// Start starts a server that was stopped or killed, on the same port and data.
func (s *Server) Start(ctx context.Context) error {
	if s.child != nil {
		return errors.New("start Postgres: it is running")
	}
	logged := len(s.Log())
	if err := s.launch(); err != nil {
		return err
	}
	if err := s.ready(ctx); err != nil {
		child := s.child
		s.child = nil
		err = errors.Join(err, child.End(process.Step{Signal: syscall.SIGQUIT, Wait: 5 * time.Second}, process.Step{Signal: syscall.SIGKILL, Wait: 5 * time.Second}))
		return s.explain(err, logged)
	}
	return nil
}

func (s *Server) launch() error {
	log, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644) //nolint:gosec // for whoever looks into a failure
	if err != nil {
		return fmt.Errorf("start Postgres: %w", err)
	}
	defer log.Close() //nolint:errcheck // the server has its own descriptor
	cmd := s.command("postgres", s.arguments()...)
	cmd.Stdout, cmd.Stderr = log, log
	// SIGQUIT is an immediate shutdown: a fast one would wait for replication
	// clients that may be gone as well.
	s.child, err = process.Start(cmd, syscall.SIGQUIT)
	return err
}

func (s *Server) arguments() []string {
	settings := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"unix_socket_directories": s.dir.Path,
		"wal_level":               "logical",
		"fsync":                   "off",
		"timezone":                "UTC",
		"log_timezone":            "UTC",
	}
	maps.Copy(settings, s.config.Settings)
	args := []string{"-D", s.data(), "-p", strconv.Itoa(s.config.Port)}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	return args
}

// ready waits for the word that the postmaster leaves on line 8 of its pid
// file once it accepts connections (src/include/utils/pidfile.h).
func (s *Server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		pidFile, err := os.ReadFile(filepath.Join(s.data(), "postmaster.pid"))
		lines := strings.Split(string(pidFile), "\n")
		mine := lines[0] == strconv.Itoa(s.child.Pid()) // not a killed predecessor's file
		if err == nil && mine && len(lines) > 7 && strings.TrimSpace(lines[7]) == "ready" {
			return nil
		}
		select {
		case <-s.child.Done():
			return fmt.Errorf("start Postgres: it ended: %w", s.child.Err())
		case <-ctx.Done():
			return fmt.Errorf("start Postgres: not ready: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// explain adds what the server said since its log was logged bytes long.
func (s *Server) explain(err error, logged int) error {
	said := s.Log()
	said = said[min(logged, len(said)):]
	if strings.Contains(said, "could not bind") {
		err = errors.Join(errPortTaken, err)
	}
	return fmt.Errorf("%w\n%s", err, strings.TrimSpace(said))
}

// Mode is how Stop ends a server.
type Mode int

const (
	// Fast disconnects clients, except that it waits until replication
	// clients have confirmed everything, and writes a checkpoint.
	Fast Mode = iota
	// Immediate ends at once; the next start recovers from the WAL.
	Immediate
)

// Stop ends the server and leaves its data. A server that is down is no error.
func (s *Server) Stop(ctx context.Context, mode Mode) error {
	sig := syscall.SIGINT
	if mode == Immediate {
		sig = syscall.SIGQUIT
	}
	if s.child == nil {
		return nil
	}
	if err := s.child.Signal(sig); err != nil {
		return fmt.Errorf("stop Postgres: %w", err)
	}
	select {
	case <-s.child.Done():
		s.child = nil
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop Postgres: %w", ctx.Err())
	}
}

// Kill ends the server and all its processes with SIGKILL, as a failing machine
// would. A server that is down is no error.
func (s *Server) Kill() error {
	if s.child == nil {
		return nil
	}
	if err := s.child.KillTree(5 * time.Second); err != nil {
		return fmt.Errorf("kill Postgres: %w", err)
	}
	s.child = nil
	return nil
}

// Restart stops the server and starts it again.
func (s *Server) Restart(ctx context.Context, mode Mode) error {
	if err := s.Stop(ctx, mode); err != nil {
		return err
	}
	return s.Start(ctx)
}

// Pause stops all the server's processes where they are (Linux only), until
// Resume.
func (s *Server) Pause() error { return s.signalAll(syscall.SIGSTOP) }

// Resume ends a Pause.
func (s *Server) Resume() error { return s.signalAll(syscall.SIGCONT) }

func (s *Server) signalAll(sig syscall.Signal) error {
	if s.child == nil {
		return errors.New("signal Postgres: it is not running")
	}
	return s.child.SignalTree(sig)
}

// Close ends the server and removes its data.
func (s *Server) Close() error {
	var err error
	if s.child != nil {
		_ = s.Resume() // a paused process notices nothing but SIGKILL
		err = s.child.End(
			process.Step{Signal: syscall.SIGQUIT, Wait: 8 * time.Second},
			process.Step{Signal: syscall.SIGKILL, Wait: 5 * time.Second})
		s.child = nil
	}
	return errors.Join(err, s.dir.Remove())
}

// fill makes the data directory.
func (s *Server) fill(ctx context.Context) error {
	if err := s.user.own(s.dir.Path); err != nil {
		return fmt.Errorf("make a data directory: %w", err)
	}
	if s.config.Backup == nil {
		return s.initdb(ctx)
	}
	backup := s.config.Backup
	s.config.Backup = nil // some dozen megabytes
	if err := s.restore(backup); err != nil {
		return fmt.Errorf("restore a backup: %w", err)
	}
	return nil
}

// initdb makes the cluster: UTF-8, the C locale (there on every machine), and
// trust for whoever reaches the loopback interface.
func (s *Server) initdb(ctx context.Context) error {
	cmd := s.command("initdb", "-D", s.data(), "-U", Superuser, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	child, err := process.Start(cmd, syscall.SIGKILL)
	if err != nil {
		return fmt.Errorf("initdb: %w", err)
	}
	select {
	case <-child.Done():
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("initdb: %w", ctx.Err()), child.End(process.Step{Signal: syscall.SIGKILL, Wait: 5 * time.Second}))
	}
	if err := child.Err(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, said.String())
	}
	return nil
}

func (s *Server) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.config.Bin, program), args...) //nolint:gosec // the caller's Postgres
	cmd.Dir = s.dir.Path
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.user.credential()}
	return cmd
}

// account is whom the server runs as; nil is whoever we are.
type account struct{ uid, gid uint32 }

// serverAccount picks an unprivileged account where we are root: Postgres
// refuses to run as root, and initdb wants a name for its user id.
func serverAccount() (*account, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(found.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(found.Gid, 10, 32)
		if err1 == nil && err2 == nil {
			return &account{uid: uint32(uid), gid: uint32(gid)}, nil
		}
	}
	return nil, errors.New("run Postgres: as root it needs a user postgres or nobody to run as, and there is neither")
}

func (a *account) credential() *syscall.Credential {
	if a == nil {
		return nil
	}
	return &syscall.Credential{Uid: a.uid, Gid: a.gid, Groups: []uint32{}}
}

func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	return os.Chown(path, int(a.uid), int(a.gid))
}
