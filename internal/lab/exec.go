package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Exec replaces this process by a command in the namespace of a lab's member.
// It returns only if that fails.
func Exec(id, member string, command []string) error {
	if !labID.MatchString(id) || strings.ContainsAny(member, "/\x00") {
		return fmt.Errorf("lab %q has no namespace %q", id, member)
	}
	name := "ph-" + id + "-" + member
	file, err := os.Open(filepath.Join(namespaceFolder, name))
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("lab %q is not running or has no %q; see `pharos lab status`", id, member)
	}
	if err != nil {
		return fmt.Errorf("exec in %s: %w", name, err)
	}
	defer file.Close()
	path, err := exec.LookPath(command[0])
	if err != nil {
		return fmt.Errorf("exec in %s: %w", name, err)
	}
	env := os.Environ()
	socket := filepath.Join(folderPath(id), member+".sock")
	if _, err := os.Stat(socket); err == nil {
		env = append(env, "PHAROS_SOCKET="+socket)
	}
	runtime.LockOSThread() // the command takes this thread's namespace
	defer runtime.UnlockOSThread()
	if err := (&namespace{name, file}).enter(); err != nil {
		return err
	}
	return fmt.Errorf("exec %s in %s: %w", path, name, unix.Exec(path, command, env))
}
