//! KVM's interface (Linux, Documentation/virt/kvm/api.rst), whoever offers it.

mod gic;
mod vcpu;
mod vm;

pub(crate) use vcpu::Vcpu;
pub(crate) use vm::Vm;
