package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// A router is one running BIRD or FRR, in a namespace of its own.
type router struct {
	// Immutable.
	plan  RouterPlan
	kind  RouterChoice // RoutersBIRD or RoutersFRR
	space *namespace
	dir   string // of its own, in the lab's

	daemons []*daemon // owned by start and stop
}

// A daemon is one process of a router or a resolver, which dies with the lab.
type daemon struct {
	cmd   *exec.Cmd
	log   string
	ended chan struct{}
}

// buildRouters readies the routers of the layout; nothing runs yet.
func (l *Lab) buildRouters() (err error) {
	frr := l.opts.Routers == RoutersFRR || l.opts.Routers == RoutersMixed ||
		l.opts.Routers == RoutersAuto && RouterChoice(RoutersMixed).missing() == nil
	for i, plan := range l.layout.Routers {
		r := &router{plan: plan, kind: RoutersBIRD, space: l.net.spaces[plan.Member], dir: filepath.Join(l.folder.path, "router-"+plan.Name)}
		if frr && plan.Name != transitName && (l.opts.Routers == RoutersFRR || i%2 == 1) {
			r.kind = RoutersFRR
		}
		if err := os.MkdirAll(r.dir, 0o750); err != nil {
			return fmt.Errorf("router %s: %w", plan.Name, err)
		}
		l.routers = append(l.routers, r)
	}
	l.routes, err = watchRoutes(l.routers, l.layout.Config.BGP.Prefixes)
	return err
}

// start starts the router.
func (r *router) start() (err error) {
	if r.kind == RoutersFRR {
		err = r.startFRR()
	} else {
		err = r.startBIRD()
	}
	if err != nil {
		return fmt.Errorf("router %s: %w", r.plan.Name, err)
	}
	return nil
}

func (r *router) startBIRD() error {
	file := filepath.Join(r.dir, "bird.conf")
	if err := os.WriteFile(file, []byte(birdConfig(r.plan, r.plan.Name == transitName)), 0o600); err != nil {
		return err
	}
	return r.run("bird", "bird2", "-f", "-c", file, "-s", r.socket(), "-P", filepath.Join(r.dir, "bird.pid"))
}

// socket is where birdc asks.
func (r *router) socket() string { return filepath.Join(r.dir, "bird.ctl") }

// run starts one program of the router.
func (r *router) run(program, pkg string, args ...string) error {
	d, err := startDaemon(r.space, r.dir, program, pkg, args...)
	if err == nil {
		r.daemons = append(r.daemons, d)
	}
	return err
}

// startDaemon starts a program in a namespace, with its log in a folder.
func startDaemon(space *namespace, dir, program, pkg string, args ...string) (*daemon, error) {
	path, err := findRouterTool(program, pkg)
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(dir, program+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	d := &daemon{cmd: exec.Command(path, args...), log: log.Name(), ended: make(chan struct{})}
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	startThread(func() { // the thread's end is the program's
		defer log.Close()
		err := space.enter()
		if err == nil {
			err = d.cmd.Start()
		}
		started <- err
		if err == nil {
			_ = d.cmd.Wait()
			close(d.ended)
		}
	})
	if err := <-started; err != nil {
		return nil, err // it would never end
	}
	return d, nil
}

// stop kills the process.
func (d *daemon) stop() {
	_ = d.cmd.Process.Kill()
	<-d.ended
}

// alive returns an error with the last words of a process that has ended.
func (d *daemon) alive() error {
	select {
	case <-d.ended:
		text, _ := os.ReadFile(d.log)
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		return fmt.Errorf("%s ended: %s", filepath.Base(d.cmd.Path), lines[len(lines)-1])
	default:
		return nil
	}
}

// stop kills the router's processes.
func (r *router) stop() {
	for _, d := range r.daemons {
		d.stop()
	}
	r.daemons = nil
}

// alive returns an error with the last words of a program that has ended.
func (r *router) alive() error {
	for _, d := range r.daemons {
		if err := d.alive(); err != nil {
			return fmt.Errorf("router %s: %w", r.plan.Name, err)
		}
	}
	return nil
}

// routersAlive is alive of all.
func (l *Lab) routersAlive() error {
	var errs []error
	for _, r := range l.routers {
		errs = append(errs, r.alive())
	}
	return errors.Join(errs...)
}
