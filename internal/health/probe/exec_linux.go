package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// limited is what starts every command: its limits can only be set from within,
// before it is what it is to be. The command is not read by the shell, which gets
// it as arguments and becomes it. Sizes: 64 open files, 1 MiB in a file (2048
// blocks of 512 bytes), 512 MiB of private memory, no core dumps; $1 seconds of
// processor time.
const limited = `ulimit -t "$1" && ulimit -d 524288 && ulimit -n 64 && ulimit -f 2048 && ulimit -c 0 || exit 126; shift; exec "$@"`

// maxProcesses is how many processes the user of a command may have when it starts
// one more. It does not bind root.
const maxProcesses = 4096

// lingering is how long the output is read on after the end of all that the command
// started, in case something that cannot be killed holds it.
const lingering = 100 * time.Millisecond

// execute runs a command to its end, and then ends what it left behind. It must be
// called in a keeper, by the goroutine that is confined.
func execute(ctx context.Context, o order) (e ending) {
	left := o.End - monotonic()
	if left <= 0 {
		return ending{Trouble: noTime}
	}
	cmd, err := o.command()
	if err != nil {
		return ending{Trouble: err.Error()}
	}
	read, write, err := os.Pipe()
	if err != nil {
		return ending{Trouble: err.Error()}
	}
	defer read.Close()
	cmd.Stdout, cmd.Stderr = write, write
	err = cmd.Start()
	write.Close()
	if err != nil {
		return ending{Trouble: err.Error()}
	}
	_ = unix.Prlimit(cmd.Process.Pid, unix.RLIMIT_NPROC, &unix.Rlimit{Cur: maxProcesses, Max: maxProcesses}, nil)
	timed, done := context.WithTimeout(ctx, left)
	defer done()
	ctx, cancel := context.WithCancel(timed)
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		if _, err := io.Copy(&e.Output, read); err != nil {
			cancel() // too much, or the end below
		}
	}()
	await(ctx, cmd.Process.Pid)
	e.Overdue = errors.Is(ctx.Err(), context.DeadlineExceeded)
	_ = cmd.Wait() // says what the status says
	e.Left = sweep()
	_ = read.SetReadDeadline(time.Now().Add(lingering))
	<-copied
	cancel()
	e.Status = cmd.ProcessState.ExitCode()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		e.Signal = status.Signal().String()
	}
	return e
}

// await waits for the end of a process, at the end of ctx by killing it, and then
// kills what is left of its group. The process is not reaped: until it is, no
// other can have its number.
func await(ctx context.Context, pid int) {
	killed := make(chan struct{})
	kill := func() { _ = syscall.Kill(-pid, syscall.SIGKILL) }
	stop := context.AfterFunc(ctx, func() {
		defer close(killed)
		kill()
	})
	for {
		if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if !stop() {
		<-killed
	}
	kill()
}

// command returns what o runs, not started.
func (o order) command() (*exec.Cmd, error) {
	cmd := &exec.Cmd{
		Path: "/bin/sh",
		Args: append([]string{"sh", "-c", limited, "sh", computingTime(o.Limit)}, o.Command...),
		Env:  o.Env,
		Dir:  "/",
		SysProcAttr: &syscall.SysProcAttr{
			Setpgid:   true,
			Pdeathsig: syscall.SIGKILL,
		},
	}
	if o.User == "" {
		return cmd, nil
	}
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("as user %s: only root can do that", o.User)
	}
	credential, err := credentialOf(o.User)
	cmd.SysProcAttr.Credential = credential
	return cmd, err
}

// credentialOf looks up a user, who then has no group but his own.
func credentialOf(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user %s: %w", name, err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user %s: %w", name, err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// confine takes from this thread, and so from what it starts, the ways to more
// privileges: set-user-ID programs and ambient capabilities.
func confine() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	// A kernel too old to have ambient capabilities has nothing to clear.
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("ambient capabilities: %w", err)
	}
	return nil
}

// computingTime is how many seconds a process may compute.
func computingTime(timeout time.Duration) string {
	return strconv.FormatInt(int64((timeout+time.Second-1)/time.Second)+1, 10)
}
