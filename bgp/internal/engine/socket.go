package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	api "github.com/osrg/gobgp/v3/api"
	"github.com/osrg/gobgp/v3/pkg/server"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// socketWait bounds how long GoBGP may take to bind its socket.
const socketWait = 2 * time.Second

// socketOptions make GoBGP answer its own command line on a unix socket: to the owner alone, questions only, without
// passwords.
func socketOptions(socket string) ([]server.ServerOption, error) {
	if socket == "" {
		return nil, nil
	}
	// Left by a process that was killed; nothing else is removed.
	if info, err := os.Lstat(socket); err == nil && info.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("%s is there and no socket", socket)
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove the old socket: %w", err)
	}
	syscall.Umask(0o177)
	return []server.ServerOption{
		server.GrpcListenAddress("unix://" + socket),
		server.GrpcOption([]grpc.ServerOption{
			grpc.UnaryInterceptor(func(ctx context.Context, in any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
				if err := onlyQuestions(info.FullMethod); err != nil {
					return nil, err
				}
				return handle(ctx, in)
			}),
			grpc.StreamInterceptor(func(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
				if err := onlyQuestions(info.FullMethod); err != nil {
					return err
				}
				return handle(srv, discreet{s})
			}),
		}),
	}, nil
}

// awaitSocket waits until GoBGP, which binds in a goroutine of its own, is there.
func awaitSocket(socket string) error {
	if socket == "" {
		return nil
	}
	for end := time.Now().Add(socketWait); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Lstat(socket); err == nil {
			return nil
		}
	}
	return fmt.Errorf("the socket %s does not come", socket)
}

func onlyQuestions(method string) error {
	name := path.Base(method)
	for _, prefix := range []string{"Get", "List", "Watch"} {
		if strings.HasPrefix(name, prefix) {
			return nil
		}
	}
	return status.Errorf(codes.PermissionDenied, "%s: this table is pharos's: change its configuration instead", name)
}

// discreet leaves passwords out of answers.
type discreet struct{ grpc.ServerStream }

// SendMsg implements grpc.ServerStream.
func (d discreet) SendMsg(m any) error {
	switch r := m.(type) {
	case *api.ListPeerResponse:
		hide(r.GetPeer())
	case *api.WatchEventResponse:
		hide(r.GetPeer().GetPeer())
	case *api.ListPeerGroupResponse:
		if c := r.GetPeerGroup().GetConf(); c != nil {
			c.AuthPassword = ""
		}
		if s := r.GetPeerGroup().GetInfo(); s != nil {
			s.AuthPassword = ""
		}
	}
	return d.ServerStream.SendMsg(m)
}

func hide(p *api.Peer) {
	if p.GetConf() != nil {
		p.Conf.AuthPassword = ""
	}
	if p.GetState() != nil {
		p.State.AuthPassword = ""
	}
}
