//! The interrupt controller (Linux, Documentation/virt/kvm/devices/arm-vgic-v3.rst).

use crate::layout;
use anyhow::{Context as _, Result};
use kvm_bindings::{
    KVM_DEV_ARM_VGIC_CTRL_INIT, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_DEV_ARM_VGIC_GRP_CTRL,
    KVM_DEV_ARM_VGIC_GRP_NR_IRQS, KVM_VGIC_V3_ADDR_TYPE_DIST, KVM_VGIC_V3_ADDR_TYPE_REDIST,
    kvm_create_device, kvm_device_attr, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3,
};
use kvm_ioctls::{DeviceFd, VmFd};

/// Makes the controller for the CPUs that are there.
pub(super) fn create(vm: &VmFd) -> Result<DeviceFd> {
    let mut request = kvm_create_device {
        type_: kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3,
        fd: 0,
        flags: 0,
    };
    let gic = vm
        .create_device(&mut request)
        .context("this host has no GICv3 for guests")?;
    let address = KVM_DEV_ARM_VGIC_GRP_ADDR;
    set(&gic, KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, Some(&layout::INTERRUPTS))?;
    set(
        &gic,
        address,
        KVM_VGIC_V3_ADDR_TYPE_DIST,
        Some(&layout::DISTRIBUTOR),
    )?;
    set(
        &gic,
        address,
        KVM_VGIC_V3_ADDR_TYPE_REDIST,
        Some(&layout::REDISTRIBUTORS),
    )?;
    set::<()>(&gic, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, None)?;
    Ok(gic)
}

fn set<T>(gic: &DeviceFd, group: u32, attribute: u32, value: Option<&T>) -> Result<()> {
    let attribute = kvm_device_attr {
        flags: 0,
        group,
        attr: attribute.into(),
        addr: value.map_or(0, |value| (&raw const *value).expose_provenance() as u64),
    };
    gic.set_device_attr(&attribute)
        .with_context(|| format!("cannot set attribute {group}.{} of the GIC", attribute.attr))
}
