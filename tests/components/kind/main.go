// Command kind-plan prints, as JSON, what kind would make of a configuration, without making a cluster:
// the mounts of its first node, and the ClusterConfiguration for kubeadm.
//
//	kind-plan CONFIGURATION KUBERNETES_VERSION
//
// kind's own code reads the configuration, renders kubeadm's and merges the patches, in the order of
// kind's pkg/cluster/internal/create/actions/config. What only a running node could tell is made up.
//
// kind keeps these packages to itself. Go decides by the path of the importing module what is inside,
// which is why this one is named as if it lay below kind's.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"sigs.k8s.io/kind/pkg/cluster/internal/kubeadm"
	"sigs.k8s.io/kind/pkg/cluster/internal/providers/common"
	"sigs.k8s.io/kind/pkg/internal/apis/config/encoding"
	"sigs.k8s.io/kind/pkg/internal/patch"
	"sigs.k8s.io/yaml"
)

type mount struct {
	HostPath      string `json:"hostPath"`
	ContainerPath string `json:"containerPath"`
	ReadOnly      bool   `json:"readOnly"`
}

type plan struct {
	Mounts               []mount         `json:"mounts"`
	ClusterConfiguration json.RawMessage `json:"clusterConfiguration"`
}

func main() {
	if len(os.Args) != 3 {
		fail(errors.New("usage: kind-plan CONFIGURATION KUBERNETES_VERSION"))
	}
	made, err := makePlan(os.Args[1], os.Args[2])
	if err != nil {
		fail(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(made); err != nil {
		fail(err)
	}
}

func makePlan(file, version string) (*plan, error) {
	cluster, err := encoding.Load(file)
	if err != nil {
		return nil, err
	}
	if err := cluster.Validate(); err != nil {
		return nil, err
	}
	node := cluster.Nodes[0]
	text, err := kubeadm.Config(kubeadm.ConfigData{
		NodeProvider:         "docker",
		ClusterName:          cluster.Name,
		KubernetesVersion:    version,
		ControlPlaneEndpoint: cluster.Name + "-control-plane:6443",
		APIBindPort:          common.APIServerInternalPort,
		APIServerAddress:     cluster.Networking.APIServerAddress,
		Token:                kubeadm.Token,
		PodSubnet:            cluster.Networking.PodSubnet,
		ServiceSubnet:        cluster.Networking.ServiceSubnet,
		KubeProxyMode:        string(cluster.Networking.KubeProxyMode),
		IPFamily:             cluster.Networking.IPFamily,
		FeatureGates:         cluster.FeatureGates,
		RuntimeConfig:        cluster.RuntimeConfig,
		ControlPlane:         true,
		NodeName:             cluster.Name + "-control-plane",
		NodeAddress:          "192.0.2.2",
	})
	if err != nil {
		return nil, err
	}
	text, err = patch.KubeYAML(text, cluster.KubeadmConfigPatches, cluster.KubeadmConfigPatchesJSON6902)
	if err != nil {
		return nil, err
	}
	text, err = patch.KubeYAML(text, node.KubeadmConfigPatches, node.KubeadmConfigPatchesJSON6902)
	if err != nil {
		return nil, err
	}

	made := &plan{}
	for _, m := range node.ExtraMounts {
		made.Mounts = append(made.Mounts, mount{m.HostPath, m.ContainerPath, m.Readonly})
	}
	for _, document := range strings.Split(text, "\n---\n") {
		if strings.Contains(document, "\nkind: ClusterConfiguration\n") {
			made.ClusterConfiguration, err = yaml.YAMLToJSON([]byte(document))
		}
	}
	return made, err
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "error:", err)
	os.Exit(1)
}
