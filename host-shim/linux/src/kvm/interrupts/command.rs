//! The VM's commands about devices, interrupts and eventfds.

use crate::kvm::abi::devices::{
    CREATE_DEVICE, CREATE_IRQCHIP, ENABLE_CAP, EnableCap, IOEVENTFD, IRQ_LINE, IRQ_LINE_STATUS, IRQFD,
    SET_GSI_ROUTING, SIGNAL_MSI,
};
use crate::kvm::{Vm, read_user};
use crate::{Errno, Linux};
use alloc::sync::Arc;

impl<L: Linux> Vm<L> {
    /// Carries out a command, if it is one of these.
    pub(in crate::kvm) fn device_command(
        self: &Arc<Self>,
        command: u32,
        argument: u64,
    ) -> Result<u64, Errno> {
        let interrupts = self.wires().interrupts();
        match command {
            CREATE_DEVICE => self.create_device(argument),
            // What it makes on Arm is a GICv2.
            CREATE_IRQCHIP if interrupts.device().is_some() => Err(Errno::EXIST),
            CREATE_IRQCHIP => Err(Errno::NODEV),
            IRQ_LINE => interrupts.set_line(argument, false),
            IRQ_LINE_STATUS => interrupts.set_line(argument, true),
            SET_GSI_ROUTING => interrupts.set_routes(argument),
            SIGNAL_MSI => interrupts.signal_message(argument),
            IRQFD => self.wires().command(argument),
            IOEVENTFD => self.doorbells().command(argument),
            ENABLE_CAP => {
                // None of the capabilities that there are is turned on.
                let _: EnableCap = read_user(self.linux(), argument)?;
                Err(Errno::INVAL)
            }
            _ => Err(Errno::INVAL),
        }
    }
}
